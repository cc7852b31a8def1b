//! One lane in all the ways that it can go: slips that run, take long, wait for room, are lost and come back, while the
//! partition changes hands. Whatever happens, they run one after the other and in their order, and the lane ends free.

use std::collections::VecDeque;

use events::lane::turn_headers;
use flow::id::{JobId, TokenId};

use super::*;

const TOPIC: &str = "meanwhile.steps.default";
const KEY: &str = "k";
/// Only ends a run that goes on for ever.
const MOVES_MAX: u32 = 200_000;

/// A record of the partition.
#[derive(Debug, Clone)]
enum Entry {
    Slip { number: u32, turn: Option<(TokenId, u32)> },
    Freed(TokenId),
}

/// A record of `waits`.
#[derive(Debug, Clone)]
enum Word {
    Holds(TokenId, u32),
    Waits { number: u32, behind: TokenId, place: u32 },
    Over(TokenId),
}

struct World {
    seed: u64,
    arrived: u32,
    tokens: u32,
    partition: Vec<Entry>,
    /// Of the partition's owner, committed: its position, and its lane on `meanwhile.lanes`.
    position: usize,
    lane: Option<HeldLane>,
    held: Held,
    /// The call under way, apart from the partition; none while its slip waits for room.
    call: Option<(TokenId, u32)>,
    waits: VecDeque<Word>,
    holder: Option<(TokenId, u32)>,
    turns: Vec<(u32, u32, TokenId)>,
    outbox: VecDeque<Entry>,
    ran: Vec<u32>,
    dead: Vec<u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            arrived: 0,
            tokens: 0,
            partition: Vec::new(),
            position: 0,
            lane: None,
            held: Held::default(),
            call: None,
            waits: VecDeque::new(),
            holder: None,
            turns: Vec::new(),
            outbox: VecDeque::new(),
            ran: Vec::new(),
            dead: Vec::new(),
        }
    }

    /// Below `end`; xorshift64.
    fn draw(&mut self, end: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % end
    }

    fn token(&mut self) -> TokenId {
        self.tokens += 1;
        TokenId { job: JobId::new(uuid::Uuid::from_u128(1)), branch: String::new(), hop: self.tokens }
    }

    fn ran(&mut self, number: u32) {
        self.ran.push(number);
    }

    fn owner_moves(&mut self) {
        let Some(entry) = self.partition.get(self.position).cloned() else { return };
        let errand = self.held.errand(&record(&entry));
        if self.draw(10) == 0 {
            // The partition goes to another worker before the commit.
            self.held = Held::restore(self.lane.clone());
            return;
        }
        match (errand, entry) {
            (Errand::Free(lane), _) => {
                if lane.is_some() {
                    self.lane = None;
                }
            }
            (Errand::Rest(lane, place), Entry::Slip { number, .. }) => self.rest(lane, place, number),
            (Errand::Run(lane), Entry::Slip { number, .. }) => self.run(lane, number),
            (errand, entry) => panic!("{errand:?} with {entry:?}"),
        }
        self.position += 1;
    }

    fn rest(&mut self, mut lane: HeldLane, place: u32, number: u32) {
        if self.draw(20) == 0 {
            lane.places.take_back(place);
            self.held.take_back(&record(&Entry::Slip { number, turn: None }), place);
            self.dead.push(number);
        } else {
            let behind = lane.holder.parse().unwrap();
            self.waits.push_back(Word::Waits { number, behind, place });
        }
        self.lane = Some(lane);
    }

    fn run(&mut self, passed: Option<HeldLane>, number: u32) {
        assert!(self.call.is_none(), "{number} runs beside {:?}", self.call);
        let kind = self.draw(4);
        if kind < 2 {
            self.ran(number);
            self.lane = passed.or_else(|| self.lane.take());
            return;
        }
        let token = self.token();
        let places = passed.map(|lane| lane.places).unwrap_or_default();
        let (topic, lane, holder) = (TOPIC.to_owned(), KEY.to_owned(), token.to_string());
        let lane = HeldLane { topic, partition: 0, lane, holder, places };
        self.held.hold(lane.clone());
        self.lane = Some(lane);
        self.waits.push_back(Word::Holds(token.clone(), number));
        // Else it waits for room.
        self.call = (kind == 2).then_some((token, number));
    }

    fn call_ends(&mut self) {
        if let Some((token, number)) = self.call.take() {
            self.ran(number);
            self.waits.push_back(Word::Over(token));
        }
    }

    fn orchestrator_moves(&mut self) {
        match self.waits.pop_front() {
            Some(Word::Holds(token, number)) => {
                assert!(self.holder.is_none(), "{token} beside {:?}", self.holder);
                self.holder = Some((token, number));
            }
            Some(Word::Waits { number, behind, place }) if self.holder.is_some() => {
                self.turns.push((place, number, behind));
            }
            Some(Word::Waits { number, behind, place }) => {
                self.outbox.push_back(Entry::Slip { number, turn: Some((behind.clone(), place)) });
                self.outbox.push_back(Entry::Freed(behind));
            }
            Some(Word::Over(token)) if self.holder.as_ref().is_some_and(|(holder, _)| *holder == token) => {
                self.holder = None;
                self.free(token);
            }
            Some(Word::Over(_)) | None => {}
        }
    }

    /// The worker of the call is lost, or the time of a rest is over: the slip is sent again.
    fn holder_is_released(&mut self) {
        if self.call.is_some() && self.draw(4) > 0 {
            return;
        }
        if let Some((token, number)) = self.holder.take() {
            if self.call.as_ref().is_some_and(|(call, _)| *call == token) {
                self.call = None;
            } else if self.waits.iter().any(|word| matches!(word, Word::Over(over) if *over == token)) {
                // Its outcome is on its way: nobody is lost who has said so.
                self.holder = Some((token, number));
                return;
            }
            self.outbox.push_back(Entry::Slip { number, turn: Some((token.clone(), 0)) });
            self.free(token);
        }
    }

    fn free(&mut self, token: TokenId) {
        self.turns.sort_by_key(|(place, ..)| *place);
        for (place, number, behind) in std::mem::take(&mut self.turns) {
            self.outbox.push_back(Entry::Slip { number, turn: Some((behind, place)) });
        }
        self.outbox.push_back(Entry::Freed(token));
    }

    fn is_quiet(&self) -> bool {
        self.position == self.partition.len()
            && self.waits.is_empty()
            && self.outbox.is_empty()
            && self.holder.is_none()
            && self.call.is_none()
    }
}

fn record(entry: &Entry) -> Inbound {
    let key = Some(KEY.as_bytes().to_vec());
    match entry {
        Entry::Slip { turn, .. } => {
            let headers = turn.as_ref().map(|(holder, place)| turn_headers(holder, *place)).unwrap_or_default();
            Inbound { key, value: Some(vec![0]), headers, ..Inbound::default() }
        }
        Entry::Freed(holder) => {
            let record = Freed { holder: holder.clone(), turns: 0 }.record(TOPIC.to_owned(), KEY.into());
            Inbound { key, headers: record.headers, ..Inbound::default() }
        }
    }
}

#[test]
fn slips_of_a_lane_run_one_after_the_other_in_their_order_and_the_lane_ends_free() {
    const SLIPS: u32 = 30;
    for seed in 1..=2_000_u64 {
        let mut world = World::new(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut moves = 0;
        while world.arrived < SLIPS || !world.is_quiet() {
            moves += 1;
            assert!(moves < MOVES_MAX, "seed {seed}: it never ends: {:?}", world.lane);
            match world.draw(9) {
                0 if world.arrived < SLIPS => {
                    let number = world.arrived;
                    world.arrived += 1;
                    world.partition.push(Entry::Slip { number, turn: None });
                }
                0..=3 => world.owner_moves(),
                4 => world.call_ends(),
                5 | 6 => world.orchestrator_moves(),
                7 => world.partition.extend(world.outbox.pop_front()),
                _ => world.holder_is_released(),
            }
        }
        assert!(world.ran.is_sorted(), "seed {seed}: {:?}", world.ran);
        assert_eq!(world.ran.len() + world.dead.len(), SLIPS as usize, "seed {seed}: each once");
        assert_eq!(world.lane, None, "seed {seed}: nothing holds the lane");
    }
}
