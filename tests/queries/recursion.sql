-- Recursive queries, which run whole in one task.
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 50) SELECT count(*), sum(n) FROM t;
WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT n * 2 % 97 FROM t) SELECT count(*), max(n) FROM t;
WITH RECURSIVE t(id, d) AS (SELECT id, 0 FROM few WHERE id = 1 UNION ALL SELECT f.id, d + 1 FROM t JOIN few f ON f.id = t.id + 1) SELECT * FROM t ORDER BY id;
WITH RECURSIVE t(id, d) AS (SELECT id, 0 FROM many WHERE id < 4 UNION ALL SELECT m.id, d + 1 FROM t JOIN many m ON m.id = t.id * 3 WHERE d < 6) SELECT d, count(*), sum(id) FROM t GROUP BY d ORDER BY d;
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 20) SELECT m.g, count(*) FROM t JOIN many m ON m.k = t.n GROUP BY m.g ORDER BY m.g;
WITH RECURSIVE t(n) AS (SELECT id FROM one UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT count(*) FROM many WHERE k IN (SELECT n FROM t);
WITH RECURSIVE t(a, b, c) AS (SELECT 1, 'x', CAST(NULL AS INT) UNION ALL SELECT a + 1, b || 'y', a FROM t WHERE a < 6) SELECT b, c FROM t ORDER BY a;
WITH RECURSIVE t(n, m) AS (SELECT 1, 2 UNION ALL SELECT n + 1, m * 2 FROM t WHERE n < 10) SELECT count(*) FROM t;
WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a WHERE n < 4), b(n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM b WHERE n < 13) SELECT a.n, b.n FROM a, b ORDER BY 1, 2;
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT n FROM t UNION ALL SELECT id FROM few UNION ALL SELECT n + 100 FROM t WHERE n > 7;
WITH RECURSIVE t(k, s) AS (SELECT k, count(*) FROM many GROUP BY k HAVING k = 3 UNION ALL SELECT t.k + 1, x.c FROM t JOIN (SELECT k, count(*) AS c FROM many GROUP BY k) x ON x.k = t.k + 1 WHERE t.k < 8) SELECT * FROM t ORDER BY k;
