//! Long calls: tokens whose step a worker has under way, those that wait behind them, how the calls end, and who lives.
//!
//! Records of one lane come by one partition, in order, and are written in that order. Different lanes do not touch
//! each other, so what a batch says is written in rounds: in each, every lane goes on as far as it can, by one
//! statement for all calls that begin, one for all turns and one for all calls that end.

use std::collections::HashMap;

use events::header;
use events::wait::{Alive, Outcome, Question, RunningCall, Turn};
use flow::id::TokenId;
use store::holds::NewHold;
use store::lanes::NewTurn;
use store::workers::News;
use store::{Error, Tx, holds, lanes, workers};

/// What a batch says of long calls.
#[derive(Default)]
pub(crate) struct LongCalls {
    rounds: Vec<Round>,
    /// Where each lane stands: its round, and what it may still add to it.
    places: HashMap<Vec<u8>, (usize, Phase)>,
    news: News,
    written: Written,
}

#[derive(Default)]
struct Round {
    running: Vec<NewHold>,
    turns: Vec<NewTurn>,
    outcomes: Vec<Outcome>,
}

/// The order within a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Turn,
    Outcome,
}

/// What became of them; told once it is committed.
#[derive(Default)]
struct Written {
    /// Outcomes of workers that no longer have the call: token and worker.
    refused: Vec<(TokenId, String)>,
    /// Turns that were sent at once.
    sent: u32,
    /// Workers that were lost by this.
    lost: u64,
}

impl LongCalls {
    /// A call has begun; `hold` is what of `call` rests. Its worker lives.
    pub(crate) fn running(&mut self, mut hold: NewHold, call: RunningCall) {
        // It is not sent before the call is over.
        hold.record.headers.push(turn_header(&call.hold.slip.token()));
        self.news.alive(&call.worker, call.lease_ms);
        hold.worker = Some(call.worker);
        self.round(call.hold.slip.record_key().as_bytes(), Phase::Running).running.push(hold);
    }

    /// A token waits for its turn; `hold` is what of `turn` rests.
    pub(crate) fn turn(&mut self, mut hold: NewHold, turn: Turn) {
        hold.record.headers.push(turn_header(&turn.behind));
        hold.place = Some(turn.place);
        let round = self.round(turn.hold.slip.record_key().as_bytes(), Phase::Turn);
        round.turns.push(NewTurn { hold, behind: turn.behind });
    }

    /// A call is over.
    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        self.round(outcome.lane.as_bytes(), Phase::Outcome).outcomes.push(outcome);
    }

    /// A worker lives.
    pub(crate) fn alive(&mut self, alive: &Alive) {
        self.news.alive(&alive.worker, alive.lease_ms);
    }

    /// A question came by.
    pub(crate) fn question(&mut self, question: &Question) {
        self.news.question(question);
    }

    /// Writes all of it, as part of the caller's transaction.
    pub(crate) async fn write(&mut self, tx: &mut Tx) -> Result<(), Error> {
        let mut written = Written::default();
        for Round { running, turns, outcomes } in &self.rounds {
            holds::insert(tx, running).await?;
            written.sent += lanes::rest(tx, turns).await?.sent;
            let applied = lanes::end(tx, outcomes).await?;
            let refused = outcomes.iter().zip(applied).filter(|(_, applied)| !applied);
            written.refused.extend(refused.map(|(outcome, _)| (outcome.token.clone(), outcome.worker.clone())));
        }
        // After the calls: they are locked first, then their workers, here and wherever both are.
        written.lost = workers::take_in(tx, &self.news).await?;
        self.written = written;
        Ok(())
    }

    /// Counts and logs, after the commit. Returns how many workers were lost by it.
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

/// Tells the slip's queue that its lane was held by this token when it came to rest.
fn turn_header(behind: &TokenId) -> (String, Option<Vec<u8>>) {
    (header::TURN.to_owned(), Some(behind.to_string().into_bytes()))
}
