-- Rows from nowhere, the clock, chance, and odd corners.
SELECT count(*) FROM many WHERE random() < 2;
SELECT count(*) FROM (SELECT random() AS r, id FROM many) x JOIN many y ON x.id = y.id WHERE r >= 0;
SELECT count(DISTINCT uuid()) > 2990 FROM many;
SELECT count(DISTINCT now()), min(now()) = max(now()) FROM many;
SELECT now() = now(), current_date = current_date;
SELECT count(*) FROM many WHERE now() > TIMESTAMP '2020-01-01 00:00:00';
VALUES (1, 'a'), (2, NULL);
SELECT column1, count(*) FROM (VALUES (1), (2), (1)) GROUP BY column1;
SELECT m.g, v.name FROM (VALUES (1, 'one'), (2, 'two')) v(g, name) JOIN (SELECT DISTINCT g FROM many) m ON m.g = v.g;
SELECT x, x * x FROM generate_series(1, 5) AS t(x);
SELECT count(*) FROM range(0, 1000) AS t(x) JOIN many ON x = id;
SELECT unnest([1, 2, NULL, 3]) AS x;
SELECT 1 WHERE false;
SELECT NULL AS n, 1 AS x UNION ALL SELECT NULL, 2;
SELECT * FROM (SELECT 1 AS a) x LEFT JOIN (SELECT 2 AS a) y ON x.a = y.a;
SELECT "id" AS "Mixed Case", k AS "select" FROM few ORDER BY "Mixed Case" LIMIT 2;
SELECT id AS "a b", name AS "ä" FROM few WHERE name <> 'ünïcode' ORDER BY 1;
SELECT s.x.y FROM (SELECT named_struct('x', named_struct('y', id)) AS s FROM one) t;
SELECT count(*) FROM many TABLESAMPLE SYSTEM (100);
WITH a AS (SELECT k, count(*) AS n FROM many GROUP BY k), b AS (SELECT k, n FROM a WHERE n > 20) SELECT count(*) FROM a JOIN b USING (k);
SELECT CASE WHEN k > 10 THEN 1 / (k - k + 1) ELSE 0 END AS q, count(*) FROM many GROUP BY q;
SELECT count(*) FROM many a WHERE a.id IN (1, 2, 3, 500, 10000) OR a.name IN ('n1', 'n2');
SELECT length(repeat(name, 50)), count(*) FROM many GROUP BY 1 ORDER BY 1;
SELECT regexp_replace(name, '[0-9]+', '#') AS r, count(*) FROM many GROUP BY r;

-- planned by the order of the series, which must not be lost when its rows go into the plan
SELECT value AS id, count(*) AS n FROM generate_series(1, 3) GROUP BY 1 ORDER BY id;
SELECT value AS id, sum(value) OVER (ORDER BY value) AS s FROM generate_series(1, 9) ORDER BY id DESC;
