-- the run that the message belonged to, as its envelope says
alter table dead_letter add column run text;
-- an audit reads a run in the order of its ids
create index dead_letter_run on dead_letter (run, message_id) where run is not null;
