//! Steps that take long leave their partition: the hold that keeps the token, the record of the outcome, and the slips
//! that rest behind.

use std::sync::Arc;
use std::time::Duration;

use bus::Record;
use events::EncodeError;
use events::dead_letter::{Class, Refused};
use events::lane::HeldLane;
use events::trace::Trace;
use events::wait::{Outcome, RunningCall, Turn, UnreadRest, Wait};
use flow::decide::{detach, wait_turn};
use flow::definition::Definition;
use flow::slip::Slip;
use flow::view::Running;
use service_kit::tasks::spawn_detached;
use service_kit::{error_chain, stop_at};

use crate::run_step::{NotRead, Runner};
use crate::spans;
use crate::task::{Apart, Task};
use crate::telemetry;
use crate::work::{Finished, LaneAfter, Work};

impl Runner {
    /// Lets the step under way leave its partition: its token becomes a hold of this worker, and the lane of its key is
    /// held. Does nothing where the step has come to its end, or its hold would not fit into a record.
    pub(crate) async fn leave(self: &Arc<Self>, task: &Task, definition: &Definition, slip: &Slip, trace: &Trace) {
        let Some(leave) = task.work.tenure.leave() else { return };
        let queue = self.queue_of(&task.work);
        let call = self.long_calls.begin(queue, task.work.record.size_bytes(), &task.work.tenure);
        let now_ms = self.clock.now_ms();
        let ran_ms = i64::try_from(task.since.elapsed().as_millis()).unwrap_or_default();
        let running = Running { worker: call.worker.clone(), since_ms: now_ms - ran_ms };
        let (mut hold, event) = detach(definition, slip, &running, now_ms);
        queue.clone_into(&mut hold.queue);
        let token = hold.slip.token();
        let lane = task.work.lane_held_by(slip.record_key(), &token);
        let apart = Apart { token, tenant: slip.tenant.clone(), lane: lane.lane.clone(), call };
        let wait = Wait::Running(RunningCall {
            hold,
            worker: running.worker,
            attempt: slip.attempt + 1,
            lease_ms: self.long_calls.lease_ms(),
        });
        let produced: Result<_, EncodeError> = (|| {
            let hold = self.writer.wait(&wait, trace)?;
            Ok(vec![hold, self.writer.event(&event, trace)?, lane.record(&self.writer.topics)])
        })();
        let produced = match produced {
            Ok(produced) => produced,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "a long call cannot leave its partition");
                return leave.stay();
            }
        };
        for record in &produced {
            if let Some(misfit) = self.limits.misfit(record, 0).await {
                tracing::warn!(misfit, "a long call cannot leave its partition");
                return leave.stay();
            }
        }
        task.set_apart(apart);
        telemetry::told(&event, trace);
        let Work { epoch, lane: number, record, .. } = &task.work;
        let finished = Finished::new(*epoch, *number, Arc::clone(record), produced, false);
        if let Some(next) = task.desk.complete(finished.with_lane(LaneAfter::Held(lane, Some(leave)))) {
            spawn_detached(Arc::clone(self).run_boxed(Arc::clone(&task.desk), next));
        }
    }

    /// The back-off between two attempts. A step whose attempts end at once leaves its partition here.
    pub(crate) async fn wait_or_leave(
        self: &Arc<Self>,
        definition: &Definition,
        slip: &Slip,
        trace: &Trace,
        task: &Task,
        delay: Duration,
    ) {
        let end = tokio::time::Instant::now() + delay;
        if task.apart().is_none() {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return,
                () = task.leave_due(self.leave_after) => {}
            }
            if task.work.tenure.begin() {
                self.leave(task, definition, slip, trace).await;
            }
        }
        tokio::time::sleep_until(end).await;
    }

    /// Waits until an attempt may begin: at once, unless this process was stopped. False: the step is another worker's.
    ///
    /// A step that has left its partition is handed over then. Its hold may be another worker's already, and nothing
    /// proves quickly that it is not.
    pub(crate) async fn may_begin(&self, task: &Task) -> bool {
        match task.apart() {
            None => task.desk.sure().await,
            Some(apart) if self.long_calls.was_stopped_since(&apart.call) => {
                if task.settle().await.is_some() {
                    task.work.tenure.give_up(false);
                }
            }
            Some(_) => {}
        }
        task.work.tenure.begin()
    }

    /// The queue that a slip came from.
    pub(crate) fn queue_of<'a>(&self, work: &'a Work) -> &'a str {
        self.writer.topics.queue_of(&work.record.topic).unwrap_or_default()
    }

    /// The record of the outcome of a step that has left: the records that follow from it, for the keeper of its hold.
    pub(crate) fn outcome_record(
        &self,
        apart: &Apart,
        records: Vec<Record>,
        trace: &Trace,
    ) -> Result<Record, EncodeError> {
        let outcome = Outcome {
            token: apart.token.clone(),
            tenant: apart.tenant.clone(),
            lane: apart.lane.clone(),
            worker: apart.call.worker.clone(),
            records,
        };
        self.writer.wait(&Wait::Outcome(outcome), trace)
    }

    /// Sends the outcome of a step that has left. If `doubtful`, first waits until the transaction of its hold has
    /// ended, so that the outcome never precedes the hold.
    pub(crate) async fn send_outcome(&self, apart: &Apart, doubtful: bool, records: &[Record]) {
        if doubtful {
            self.long_calls.session_ended(apart.call.session).await;
        }
        stop_at("workers.before-outcome");
        for record in records {
            self.long_calls.send(record).await;
        }
        stop_at("workers.after-outcome");
    }

    /// Lays a slip to rest in this place of its lane, which is held.
    pub(crate) async fn rest(&self, task: &Task, mut lane: HeldLane, place: u32) -> Option<Work> {
        let Work { epoch, lane: number, record, .. } = &task.work;
        let (mut produced, dead, lane_after) = match self.turn(task, &lane, place).await {
            Ok(produced) => (produced, false, LaneAfter::Same),
            Err(refused) => {
                lane.places.take_back(place);
                (vec![self.dead_letter(record, &refused)], true, LaneAfter::TakenBack(place))
            }
        };
        produced.push(lane.record(&self.writer.topics));
        let finished = Finished::new(*epoch, *number, Arc::clone(record), produced, dead);
        task.desk.complete(finished.with_lane(lane_after))
    }

    async fn turn(&self, task: &Task, lane: &HeldLane, place: u32) -> Result<Vec<Record>, Refused> {
        let record = &task.work.record;
        let behind = lane.holder.parse();
        let behind = behind.map_err(|error| Refused::new(Class::Unreadable, format!("a lane's holder: {error}")))?;
        let slip = match self.read(task).await {
            Ok(slip) => slip,
            Err(NotRead::Refused(refused)) => return Err(refused),
            Err(NotRead::NotNow | NotRead::Newer(_)) => {
                return self.rest_unread(task, UnreadRest::Behind(behind, place)).await;
            }
        };
        let hold = wait_turn(&slip, self.queue_of(&task.work));
        let span = spans::process(record, self.writer.topics.prefix());
        let trace = span.carry_on(Trace::from_headers(&record.headers), &self.ids);
        let turn = Wait::Turn(Turn { hold, behind, place });
        let turn = self.writer.wait(&turn, &trace);
        let turn = turn.map_err(|error| Refused::new(Class::TooLarge, error_chain(&error)))?;
        if let Some(misfit) = self.limits.misfit(&turn, 0).await {
            return Err(Refused::new(Class::TooLarge, misfit));
        }
        metrics::counter!("meanwhile_holds_total", "reason" => "turn").increment(1);
        Ok(vec![turn])
    }
}
