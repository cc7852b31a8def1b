-- By which holds of each reason are counted, and the oldest ones are found.
create index holds_by_reason on orchestrator.holds (reason, held_at);
-- Whether a lane is due, however many other holds are.
create index holds_lanes_due on orchestrator.holds (release_at) where reason in ('room', 'unread');

-- No query used them, each job was written into them, and where a partition had no statistics yet a job was looked up
-- by its tenant alone. Lists of jobs, once there are some, bring their own.
drop index orchestrator.jobs_by_flow;
drop index orchestrator.jobs_by_correlation;
