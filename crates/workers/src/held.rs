//! Lanes of one partition that a long call holds: later slips of such a lane rest behind it. Pure.
//!
//! Slips that were sent again from a held lane say so in a header and may pass; the record that frees the lane stands
//! behind them in the partition, so no slip ever overtakes another one of its lane.

use std::collections::HashMap;

use bus::Inbound;
use events::header;
use events::lane::{Freed, HeldLane};

/// What a record is to be used for, once its turn has come in its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// A slip: run its step.
    Run,
    /// A slip of a lane that is held: lay it to rest, in the last place that the lane now has.
    Rest(HeldLane),
    /// A lane is free: forget it, if it is this one.
    Free(Option<HeldLane>),
}

/// The lanes by record key.
#[derive(Debug, Default)]
pub(crate) struct Held(HashMap<Vec<u8>, HeldLane>);

impl Held {
    /// As the partition's last owner left them.
    pub(crate) fn restore(lanes: impl IntoIterator<Item = HeldLane>) -> Self {
        Self(lanes.into_iter().map(|lane| (lane.lane.clone().into_bytes(), lane)).collect())
    }

    /// What to do with a record, in the order of its lane.
    pub(crate) fn errand(&mut self, record: &Inbound) -> Errand {
        let key = record.key.as_deref().unwrap_or_default();
        if record.value.is_none()
            && let Some(Freed { holder, turns }) = Freed::read(record)
        {
            // More may rest behind the holder than were sent again: then another such record follows.
            let ends = |lane: &HeldLane| lane.holder == holder.to_string() && lane.turns == turns;
            let lane = if self.0.get(key).is_some_and(ends) { self.0.remove(key) } else { None };
            return Errand::Free(lane);
        }
        match self.0.get_mut(key) {
            Some(lane) if record.header_text(header::TURN) != Some(lane.holder.as_str()) => {
                lane.turns += 1;
                Errand::Rest(lane.clone())
            }
            Some(_) | None => Errand::Run,
        }
    }

    /// A long call holds the lane from now on.
    pub(crate) fn hold(&mut self, lane: HeldLane) {
        self.0.insert(lane.lane.clone().into_bytes(), lane);
    }

    /// The slip that was to rest last in this lane did not.
    pub(crate) fn take_back(&mut self, key: &[u8]) {
        if let Some(lane) = self.0.get_mut(key) {
            lane.turns = lane.turns.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use flow::id::{JobId, TokenId};

    use super::*;

    const TOPIC: &str = "meanwhile.steps.default";

    fn token(hop: u32) -> TokenId {
        TokenId { job: JobId::new(uuid::Uuid::from_u128(1)), branch: String::new(), hop }
    }

    fn lane(hop: u32) -> HeldLane {
        HeldLane {
            topic: TOPIC.to_owned(),
            partition: 0,
            lane: "k".to_owned(),
            holder: token(hop).to_string(),
            turns: 0,
        }
    }

    fn slip(key: &str, turn: Option<u32>) -> Inbound {
        let header = |hop| (header::TURN.to_owned(), Some(token(hop).to_string().into_bytes()));
        let headers = turn.map(header).into_iter().collect();
        Inbound { key: Some(key.into()), value: Some(vec![0]), headers, ..Inbound::default() }
    }

    fn freed(hop: u32, turns: u32) -> Inbound {
        let record = Freed { holder: token(hop), turns }.record(TOPIC.to_owned(), b"k".to_vec());
        Inbound { key: record.key, headers: record.headers, ..Inbound::default() }
    }

    fn turns(errand: Errand) -> Option<u32> {
        match errand {
            Errand::Rest(lane) => Some(lane.turns),
            Errand::Run | Errand::Free(_) => None,
        }
    }

    #[test]
    fn slips_of_a_held_lane_rest_in_order_until_every_one_of_them_was_sent_again() {
        let mut held = Held::default();
        assert_eq!(held.errand(&slip("k", None)), Errand::Run);
        held.hold(lane(5));
        assert_eq!(held.errand(&slip("other", None)), Errand::Run);
        assert_eq!(turns(held.errand(&slip("k", None))), Some(1));
        assert_eq!(turns(held.errand(&slip("k", None))), Some(2));
        assert_eq!(held.errand(&slip("k", Some(5))), Errand::Run, "sent again from behind the holder");
        assert_eq!(held.errand(&freed(5, 1)), Errand::Free(None), "the second is still to come");
        assert_eq!(turns(held.errand(&slip("k", None))), Some(3));
        held.take_back(b"k");
        assert!(matches!(held.errand(&freed(5, 2)), Errand::Free(Some(_))));
        assert_eq!(held.errand(&slip("k", None)), Errand::Run);
    }

    #[test]
    fn a_lane_that_another_call_holds_by_now_is_not_freed_by_the_first_ones_end() {
        let mut held = Held::restore([lane(5)]);
        assert_eq!(held.errand(&slip("k", Some(5))), Errand::Run);
        held.hold(lane(9));
        assert_eq!(turns(held.errand(&slip("k", Some(5)))), Some(1), "it was sent again behind the first holder");
        assert_eq!(held.errand(&freed(5, 0)), Errand::Free(None));
        assert!(matches!(held.errand(&freed(9, 1)), Errand::Free(Some(_))));
    }
}
