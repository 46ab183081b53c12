-- no default: a receiver from before redrives knows no number. It would take a dead letter that was sent back for a copy of
-- the one that is decided, and ack it. Without a number it fails, and the dead letter stays in its queue for one that knows
alter table dead_letter alter column redrive drop default;
