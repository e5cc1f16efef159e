-- Refuses a second completion event of an aggregate. It replaces the unique index
-- (aggregate_id, event_type) where published_at is null, which guards nothing after the adoption.
-- Run this as the owner of event_outbox, before the adoption. It does not block writers.

-- Aggregates that have several already. If there are any, limit the index to later rows:
-- add "and created_at >= '...'" to its condition.
select aggregate_id, event_type, count(*) from public.event_outbox
where event_type in ('huleedu.cj_assessment.completed.v1')
group by aggregate_id, event_type having count(*) > 1;

create unique index concurrently uq_event_outbox_completion on public.event_outbox (aggregate_id, event_type)
where event_type in ('huleedu.cj_assessment.completed.v1');
