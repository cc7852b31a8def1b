-- Not only a running call holds its lane: a slip that waits for room, or waits to be read, does too, so that the slips
-- behind it keep their order.
drop index orchestrator.holds_running_by_lane;
create index holds_by_lane on orchestrator.holds (topic, key) where reason in ('running', 'room', 'unread');

-- When a lost worker was told so last. The row stays until the record that tells it is taken back.
alter table orchestrator.workers add column told_at timestamptz;
