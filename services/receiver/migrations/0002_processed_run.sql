-- an audit reads a run in the order of its ids
create index processed_run on processed (run, message_id) where run is not null;
