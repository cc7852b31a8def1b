//! Long calls: tokens whose step a worker has under way, tokens that wait behind them, outcomes, and signs of life.
//!
//! Records of one lane come by one partition, in order, and are written in that order. Different lanes are
//! independent, so the records of a batch are written in rounds. In each round every lane goes on as far as it can, by
//! one statement for all holds that hold their lanes, one for all turns and one for all calls that end.

use std::collections::HashMap;

use events::lane::turn_headers;
use events::wait::{Alive, Outcome, Question, RunningCall};
use flow::id::{JobId, TokenId};
use store::holds::NewHold;
use store::lanes::NewTurn;
use store::workers::News;
use store::{Error, Tx, holds, lanes, workers};

/// The records of a batch about long calls.
#[derive(Default)]
pub(crate) struct LongCalls {
    rounds: Vec<Round>,
    /// The current round of each lane, and the phase that the lane has reached in it.
    places: HashMap<Vec<u8>, (usize, Phase)>,
    news: News,
    written: Written,
}

#[derive(Default)]
struct Round {
    holders: Vec<NewHold>,
    turns: Vec<NewTurn>,
    outcomes: Vec<Outcome>,
}

/// The order within a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Holder,
    Turn,
    Outcome,
}

/// The effects of the records, to be logged once they are committed.
#[derive(Default)]
struct Written {
    /// Outcomes of workers that no longer have the call: token and worker.
    refused: Vec<(TokenId, String)>,
    /// The count of turns that were sent at once.
    sent: u32,
    /// The count of workers that were declared lost.
    lost: u64,
}

impl LongCalls {
    /// Takes in a call that has begun; `hold` is the hold of `call`. It is a sign of life of its worker too.
    pub(crate) fn running(&mut self, mut hold: NewHold, call: RunningCall) {
        self.news.alive(&call.worker, call.lease_ms);
        hold.worker = Some(call.worker);
        self.holder(hold);
    }

    /// Takes in a token that holds its lane until this hold is released.
    pub(crate) fn holder(&mut self, mut hold: NewHold) {
        // The headers let it pass the lane that it holds itself.
        hold.record.headers.append(&turn_headers(&hold.token, 0));
        let lane = hold.record.key.clone().unwrap_or_default();
        self.round(&lane, Phase::Holder).holders.push(hold);
    }

    /// Takes in a token that waits for its turn behind another one, in this place.
    pub(crate) fn turn(&mut self, mut hold: NewHold, behind: TokenId, place: u32) {
        hold.record.headers.append(&turn_headers(&behind, place));
        hold.place = Some(place);
        let lane = hold.record.key.clone().unwrap_or_default();
        self.round(&lane, Phase::Turn).turns.push(NewTurn { hold, behind });
    }

    /// Takes in the outcome of a call.
    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        self.round(outcome.lane.as_bytes(), Phase::Outcome).outcomes.push(outcome);
    }

    /// Takes in a sign of life.
    pub(crate) fn alive(&mut self, alive: &Alive) {
        self.news.alive(&alive.worker, alive.lease_ms);
    }

    /// Takes in a question to a worker.
    pub(crate) fn question(&mut self, question: &Question) {
        self.news.question(question);
    }

    /// True if there is a new hold that is released at a time.
    pub(crate) fn has_new_due(&self) -> bool {
        self.rounds.iter().flat_map(|round| &round.holders).any(|hold| hold.release_after_ms.is_some())
    }

    /// The jobs whose tokens come to rest by these records.
    pub(crate) fn rested(&self) -> impl Iterator<Item = JobId> {
        self.rounds.iter().flat_map(|round| {
            let turns = round.turns.iter().map(|turn| &turn.hold);
            round.holders.iter().chain(turns).map(|hold| hold.token.job)
        })
    }

    /// Writes all records, as part of the caller's transaction.
    pub(crate) async fn write(&mut self, tx: &mut Tx) -> Result<(), Error> {
        let mut written = Written::default();
        for Round { holders, turns, outcomes } in &self.rounds {
            holds::insert(tx, holders).await?;
            written.sent += lanes::rest(tx, turns).await?.sent;
            let applied = lanes::end(tx, outcomes).await?;
            let refused = outcomes.iter().zip(applied).filter(|(_, applied)| !applied);
            written.refused.extend(refused.map(|(outcome, _)| (outcome.token.clone(), outcome.worker.clone())));
        }
        // Written after the calls: every transaction that locks both locks calls first, then their workers.
        written.lost = workers::take_in(tx, &self.news).await?;
        self.written = written;
        Ok(())
    }

    /// Counts and logs, after the commit. Returns the count of workers that were declared lost.
    pub(crate) fn log(&self) -> u64 {
        metrics::counter!("meanwhile_holds_released_total").increment(u64::from(self.written.sent));
        for (token, worker) in &self.written.refused {
            metrics::counter!("meanwhile_outcomes_refused_total").increment(1);
            tracing::info!(job.id = %token.job, worker, "outcome refused: the worker no longer has the call");
        }
        self.written.lost
    }

    /// The round that the lane's next record belongs to.
    fn round(&mut self, lane: &[u8], phase: Phase) -> &mut Round {
        let place = self.places.entry(lane.to_vec()).or_insert((0, phase));
        *place = if phase < place.1 { (place.0 + 1, phase) } else { (place.0, phase) };
        let index = place.0;
        while self.rounds.len() <= index {
            self.rounds.push(Round::default());
        }
        &mut self.rounds[index]
    }
}
