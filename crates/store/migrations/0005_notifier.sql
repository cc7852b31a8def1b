create schema notifier;

create table notifier.offsets (
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    updated_at timestamptz not null default now(),
    primary key (topic, partition)
) with (fillfactor = 50);

grant usage, create on schema notifier to meanwhile_notifier;
alter table notifier.offsets owner to meanwhile_notifier;
