-- an audit asks how the deliveries of a run ended that brought no effect; most bring one, and cost this index nothing
create index delivery_other on delivery (message_id) where outcome is distinct from 'processed';
