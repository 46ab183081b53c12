-- how often the message had been sent back on purpose; a sender publishes what is new: 0
alter table outbox add column redrive integer not null default 0;
