-- raw_clicks -> clean_clicks -> clicks_clean ─┐
--                                             ├─> join_hours -> ad_hours -> sum_days -> ad_days
-- raw_spend  -> clean_spend  -> spend_clean ──┘

-- Five past each hour, as soon as whoever collects clicks says that the hour is complete (ALTER DATASET raw_clicks COMPLETE).
-- Left out: clicks without an ad, those of our own tests (visitor 0), and those that earned nothing that can be read.
CREATE JOB clean_clicks INTO clicks_clean
  SCHEDULE CRON '5 * * * *' INTERVAL '1 hour' START '2026-03-01'
  DEPENDS ON raw_clicks COMPLETE
  CONSTRAINT clicked_in_its_hour EXPECT (ts >= hour AND ts < hour + INTERVAL '1 hour') ON VIOLATION FAIL
  WITH (interval_column = 'hour', max_active_runs = 2)
AS SELECT hour, ts, ad, visitor, TRY_CAST(revenue AS DECIMAL(12, 4)) AS revenue FROM raw_clicks
   WHERE hour >= $interval_start AND hour < $interval_end
     AND ad IS NOT NULL AND visitor > 0 AND TRY_CAST(revenue AS DECIMAL(12, 4)) IS NOT NULL;

CREATE JOB clean_spend INTO spend_clean
  SCHEDULE CRON '5 * * * *' INTERVAL '1 hour' START '2026-03-01'
  DEPENDS ON raw_spend COMPLETE
  CONSTRAINT nobody_pays_us EXPECT (spend >= 0) ON VIOLATION FAIL
  WITH (interval_column = 'hour', max_active_runs = 2)
AS SELECT hour, ad, campaign, impressions, spend FROM raw_spend
   WHERE hour >= $interval_start AND hour < $interval_end;

-- Waits for both, for as long as that takes.
CREATE JOB join_hours INTO ad_hours
  SCHEDULE CRON '10 * * * *' INTERVAL '1 hour' START '2026-03-01'
  DEPENDS ON clicks_clean COMPLETE, spend_clean COMPLETE
  CONSTRAINT shown_before_clicked EXPECT (clicks <= impressions) ON VIOLATION FAIL
  WITH (interval_column = 'hour', max_active_runs = 2)
AS SELECT spent.hour, spent.ad, campaign, impressions, spend, coalesce(clicks, 0) AS clicks, coalesce(revenue, 0) AS revenue
   FROM (SELECT hour, ad, campaign, impressions, spend FROM spend_clean
         WHERE hour >= $interval_start AND hour < $interval_end) AS spent
   LEFT JOIN (SELECT hour, ad, count(*) AS clicks, sum(revenue) AS revenue FROM clicks_clean
              WHERE hour >= $interval_start AND hour < $interval_end GROUP BY hour, ad) AS clicked
   ON spent.hour = clicked.hour AND spent.ad = clicked.ad;

-- Has no schedule: it runs when the 24 hours of a day are there, and again when one of them is published anew.
CREATE JOB sum_days INTO ad_days
  TRIGGER ON UPDATE OF ad_hours
  INTERVAL '1 day' START '2026-03-01' CATCHUP TRUE
  WITH (partition = 'day')
AS SELECT CAST(date_trunc('day', hour) AS DATE) AS day, campaign, sum(impressions) AS impressions, sum(spend) AS spend,
     sum(clicks) AS clicks, sum(revenue) AS revenue
   FROM ad_hours WHERE hour >= $interval_start AND hour < $interval_end GROUP BY 1, 2;
