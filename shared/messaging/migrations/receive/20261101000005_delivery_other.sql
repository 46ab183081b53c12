-- an audit asks how the deliveries of a run ended that brought no effect. One that brings its effect at once costs this
-- index nothing; one that is in hand for longer is in it until it is settled
create index delivery_other on delivery (message_id) where outcome is distinct from 'processed';
