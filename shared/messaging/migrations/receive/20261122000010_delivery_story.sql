-- what a passport tells of a delivery beyond its outcome; all of it is written behind the road, like the row itself
alter table delivery
    -- the process that took it: another one of the same name is another start of this node
    add column boot uuid,
    -- the session with the broker in which it came
    add column session uuid,
    -- how it left the hand; null where its session ended first, or nothing is known
    add column answer text check (answer in ('ack', 'nack', 'reject', 'ladder', 'drop', 'dead-letter')),
    -- the broker's own count of earlier deliveries, where it counts
    add column earlier integer;

-- sessions of a receiver with the broker, so that a delivery that came to no end can say why; best effort, never decides anything
create table session (
    session uuid primary key,
    boot uuid not null,
    node text not null,
    began_at timestamptz not null,
    -- null: no end is on record; the process died, or could not write it
    ended_at timestamptz,
    ended_by text check (ended_by in ('stopped', 'cancelled', 'channel-closed', 'ack-timeout', 'connection-closed',
                                      'connection-lost', 'dropped', 'other')),
    -- in the words of who noticed it
    why text
);
-- whether a node came back as another process
create index session_node on session (node, began_at);
