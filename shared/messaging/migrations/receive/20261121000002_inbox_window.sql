-- below this id rows of the inbox may be gone; one row, moved forward before anything below it is deleted
create table inbox_window (
    only_one boolean primary key default true check (only_one),
    below uuid not null
);
insert into inbox_window (below) values ('00000000-0000-0000-0000-000000000000');
-- the boundary as it is now, not as it was when the statement that asks began: volatile for that reason
create function inbox_below() returns uuid language sql volatile as 'select below from inbox_window';
-- rows go at one end all the time: what they leave is made free again by how much it is, before the table has grown by it
alter table inbox set (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
