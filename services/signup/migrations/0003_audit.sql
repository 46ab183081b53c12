-- The auditor reads what became of each mail, and neither names nor addresses nor passwords nor tokens. The bodies of
-- messages and of dead letters hold names and addresses, so it reads those tables without them. A cluster without that role
-- has nobody to let in.
do $$
begin
    if exists (select from pg_roles where rolname = 'auditor') then
        grant select (user_id, message_id, created_at, node, run) on account to auditor;
        grant select on mail, failure, given_up, delivery, inbox, inbox_window, publication, session to auditor;
        grant select (message_id, kind, node, run, accepted_at, state, tries, free_at, lease, redrive) on outbox to auditor;
        grant select (dead_letter_id, fingerprint, message_id, kind, reason, attempts, node, run, dead_at, redrive, state,
                      decided_at, redriven_by) on dead_letter to auditor;
    end if;
end $$;
