-- an audit reads a run in the order of its ids; pages send without a run, and cost this index nothing
create index message_run on message (run, message_id) where run is not null;
