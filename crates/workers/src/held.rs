//! Lanes of one partition that a long call holds: later slips of such a lane rest behind it. Pure.
//!
//! Slips that were sent again from a held lane say so in a header and may pass; the record that frees the lane stands
//! behind them in the partition, so no slip ever overtakes another one of its lane.

use std::collections::HashMap;

use bus::Inbound;
use events::header;
use events::lane::{Freed, HeldLane, place_of};

/// The use of a record, decided once its turn has come in its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// A slip: run its step. Present: its lane is held by one before it, and this is the lane once it has passed.
    Run(Option<HeldLane>),
    /// A slip of a lane that is held: lay it to rest in this place of it.
    Rest(HeldLane, u32),
    /// Forget the lane, which is free now. None: another token holds the lane by now, or more slips are to come.
    Free(Option<HeldLane>),
}

/// The lanes by record key; and of some, how often in a row a slip came back before those of earlier places.
#[derive(Debug, Default)]
pub(crate) struct Held(HashMap<Vec<u8>, HeldLane>, HashMap<Vec<u8>, u32>);

/// Everything on the way of a slip that rests keeps its order, so an earlier one comes within a few rounds, unless it
/// became a dead letter on that way.
const EARLY_MAX: u32 = 100;

impl Held {
    /// The lanes as the partition's last owner left them.
    pub(crate) fn restore(lanes: impl IntoIterator<Item = HeldLane>) -> Self {
        Self(lanes.into_iter().map(|lane| (lane.lane.clone().into_bytes(), lane)).collect(), HashMap::new())
    }

    /// Decides the use of a record; called in the order of its lane.
    pub(crate) fn errand(&mut self, record: &Inbound) -> Errand {
        let key = record.key.as_deref().unwrap_or_default();
        if record.value.is_none()
            && let Some(Freed { holder, .. }) = Freed::read(record)
        {
            // What still rests behind the holder is sent with another such record behind it.
            let ends = |lane: &HeldLane| lane.holder == holder.to_string() && lane.places.are_over();
            let lane = if self.0.get(key).is_some_and(ends) { self.0.remove(key) } else { None };
            if lane.is_some() {
                self.1.remove(key);
            }
            return Errand::Free(lane);
        }
        let Some(lane) = self.0.get_mut(key) else { return Errand::Run(None) };
        let had = place_of(record);
        let place = had.unwrap_or_default();
        if record.header_text(header::TURN) == Some(lane.holder.as_str()) {
            let early = self.1.entry(key.to_vec()).or_default();
            if lane.places.may_pass(place) || *early >= EARLY_MAX {
                if *early >= EARLY_MAX {
                    tracing::warn!(lane = lane.lane, place, "slips of earlier places never came back; passed over");
                }
                self.1.remove(key);
                lane.places.pass(place);
                return Errand::Run(Some(lane.clone()));
            }
            *early += 1;
        }
        let place = lane.places.rest(had);
        Errand::Rest(lane.clone(), place)
    }

    /// A slip holds the lane from now on.
    pub(crate) fn hold(&mut self, lane: HeldLane) {
        self.0.insert(lane.lane.clone().into_bytes(), lane);
    }

    /// The slip that was to rest in this place of its lane did not.
    pub(crate) fn take_back(&mut self, record: &Inbound, place: u32) {
        if let Some(lane) = self.0.get_mut(record.key.as_deref().unwrap_or_default()) {
            lane.places.take_back(place);
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use events::lane::{Places, turn_headers};
    use flow::id::{JobId, TokenId};

    use super::*;

    const TOPIC: &str = "meanwhile.steps.default";

    fn token(hop: u32) -> TokenId {
        TokenId { job: JobId::new(uuid::Uuid::from_u128(1)), branch: String::new(), hop }
    }

    fn lane(hop: u32, places: Places) -> HeldLane {
        HeldLane { topic: TOPIC.to_owned(), partition: 0, lane: "k".to_owned(), holder: token(hop).to_string(), places }
    }

    /// With the holder behind which it waited, and its place there.
    fn slip(key: &str, turn: Option<(u32, u32)>) -> Inbound {
        let headers = turn.map(|(hop, place)| turn_headers(&token(hop), place)).unwrap_or_default();
        Inbound { key: Some(key.into()), value: Some(vec![0]), headers, ..Inbound::default() }
    }

    fn freed(hop: u32, turns: u32) -> Inbound {
        let record = Freed { holder: token(hop), turns }.record(TOPIC.to_owned(), b"k".to_vec());
        Inbound { key: record.key, headers: record.headers, ..Inbound::default() }
    }

    fn place(errand: Errand) -> Option<u32> {
        match errand {
            Errand::Rest(_, place) => Some(place),
            Errand::Run(_) | Errand::Free(_) => None,
        }
    }

    fn passes(errand: Errand) -> Places {
        match errand {
            Errand::Run(Some(lane)) => lane.places,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slips_of_a_held_lane_rest_in_order_until_every_one_of_them_was_sent_again() {
        let mut held = Held::default();
        assert_eq!(held.errand(&slip("k", None)), Errand::Run(None));
        held.hold(lane(5, Places::default()));
        assert_eq!(held.errand(&slip("other", None)), Errand::Run(None));
        assert_eq!(place(held.errand(&slip("k", None))), Some(1));
        assert_eq!(place(held.errand(&slip("k", None))), Some(2));
        assert_eq!(passes(held.errand(&slip("k", Some((5, 1))))).passed, 1, "sent again from behind it");
        assert_eq!(held.errand(&freed(5, 1)), Errand::Free(None), "the second is still to come");
        assert_eq!(place(held.errand(&slip("k", None))), Some(3));
        held.take_back(&slip("k", None), 3);
        assert_eq!(passes(held.errand(&slip("k", Some((5, 2))))).passed, 2);
        assert!(matches!(held.errand(&freed(5, 2)), Errand::Free(Some(_))));
        assert_eq!(held.errand(&slip("k", None)), Errand::Run(None));
    }

    #[test]
    fn a_slip_that_was_sent_again_and_takes_long_holds_the_lane_for_those_that_came_before_others() {
        let mut held = Held::restore([lane(5, Places { last: 3, ..Places::default() })]);
        // A fourth came while the first three were on their way back.
        assert_eq!(place(held.errand(&slip("k", None))), Some(4));
        let places = passes(held.errand(&slip("k", Some((5, 1)))));
        held.hold(lane(9, places));
        let behind = [Some((5, 2)), Some((5, 3)), None, Some((5, 4))];
        assert_eq!(behind.map(|turn| place(held.errand(&slip("k", turn)))), [Some(2), Some(3), Some(5), Some(4)]);
        assert_eq!(held.errand(&freed(5, 3)), Errand::Free(None), "another call holds it by now");
        for turn in 2..=5 {
            assert_eq!(held.errand(&freed(9, 5)), Errand::Free(None), "{turn} is still to come");
            assert_eq!(passes(held.errand(&slip("k", Some((9, turn))))).passed, turn);
        }
        assert!(matches!(held.errand(&freed(9, 5)), Errand::Free(Some(_))));
    }

    #[test]
    fn a_slip_that_comes_back_before_one_of_an_earlier_place_rests_again() {
        let mut held = Held::restore([lane(9, Places { last: 3, passed: 1, empty: Vec::new() })]);
        assert_eq!(place(held.errand(&slip("k", Some((9, 3))))), Some(3));
        assert_eq!(held.errand(&freed(9, 3)), Errand::Free(None));
        assert_eq!(passes(held.errand(&slip("k", Some((9, 2))))).passed, 2);
        assert_eq!(held.errand(&freed(9, 2)), Errand::Free(None));
        assert_eq!(passes(held.errand(&slip("k", Some((9, 3))))).passed, 3);
        assert!(matches!(held.errand(&freed(9, 3)), Errand::Free(Some(_))));
    }

    #[test]
    fn a_place_that_was_lost_on_the_way_is_passed_over_in_the_end() {
        let mut held = Held::restore([lane(9, Places { last: 3, passed: 1, empty: Vec::new() })]);
        for _ in 0..EARLY_MAX {
            assert_eq!(place(held.errand(&slip("k", Some((9, 3))))), Some(3));
        }
        assert_eq!(passes(held.errand(&slip("k", Some((9, 3))))).passed, 3);
        assert!(matches!(held.errand(&freed(9, 3)), Errand::Free(Some(_))));
    }

    #[test]
    fn a_call_that_is_made_again_keeps_the_places_behind_it() {
        let mut held = Held::restore([lane(5, Places { last: 3, passed: 1, empty: Vec::new() })]);
        let places = passes(held.errand(&slip("k", Some((5, 0)))));
        held.hold(lane(6, places));
        assert_eq!(place(held.errand(&slip("k", Some((5, 2))))), Some(2));
        assert_eq!(place(held.errand(&slip("k", Some((5, 1))))), Some(4), "no place of those that are behind");
    }
}
