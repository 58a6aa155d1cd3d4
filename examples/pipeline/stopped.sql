-- Where did it stop, and why?
SELECT job, interval_start, state, coalesce(upstream, waits_for, error) AS why, run_id FROM system.intervals
WHERE state NOT IN ('published', 'skipped', 'missing', 'future') ORDER BY job, interval_start;
