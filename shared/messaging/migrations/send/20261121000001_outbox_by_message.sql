-- one key less to write for each message: its id is key enough
alter table outbox drop column outbox_id;
alter table outbox add primary key (message_id);
alter table outbox drop constraint outbox_message_id_key;
-- rows only pass through, and what is behind them is read: vacuumed by how many left, not by a share of the table
alter table outbox set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
