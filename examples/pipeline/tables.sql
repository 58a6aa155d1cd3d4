-- Raw files, as other systems leave them: one folder for each hour. Relative locations begin where `tidemill sql` runs.

-- JSON lines, from two collectors. What a click earned is text, and sometimes none.
CREATE EXTERNAL TABLE raw_clicks (ts TIMESTAMP, ad BIGINT, visitor BIGINT, revenue VARCHAR, hour TIMESTAMP)
  STORED AS JSON PARTITIONED BY (hour) LOCATION 'raw/clicks/';

-- CSV with a header, from the ad server: for each ad how often it was shown, and what that cost.
CREATE EXTERNAL TABLE raw_spend (ad BIGINT, campaign VARCHAR, impressions BIGINT, spend DECIMAL(12, 4), hour TIMESTAMP)
  STORED AS CSV PARTITIONED BY (hour) LOCATION 'raw/spend/' OPTIONS ('format.has_header' 'true');

-- Datasets: each publication is one version, complete or absent, and other engines read them.
CREATE EXTERNAL TABLE clicks_clean (hour TIMESTAMP, ts TIMESTAMP, ad BIGINT, visitor BIGINT, revenue DECIMAL(12, 4))
  STORED AS DELTA LOCATION 'lake/clicks_clean/';

CREATE EXTERNAL TABLE spend_clean (hour TIMESTAMP, ad BIGINT, campaign VARCHAR, impressions BIGINT, spend DECIMAL(12, 4))
  STORED AS DELTA LOCATION 'lake/spend_clean/';

CREATE EXTERNAL TABLE ad_hours (hour TIMESTAMP, ad BIGINT, campaign VARCHAR, impressions BIGINT, spend DECIMAL(12, 4),
    clicks BIGINT, revenue DECIMAL(22, 4))
  STORED AS DELTA LOCATION 'lake/ad_hours/';

CREATE EXTERNAL TABLE ad_days (day DATE, campaign VARCHAR, impressions BIGINT, spend DECIMAL(22, 4), clicks BIGINT,
    revenue DECIMAL(32, 4))
  STORED AS DELTA PARTITIONED BY (day) LOCATION 'lake/ad_days/';
