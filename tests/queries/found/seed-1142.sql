-- tables of seed 28
SELECT r3.c0 AS c0, r3.c1 AS c1 FROM (SELECT r1.c0 AS c0, r1.c1 AS c1 FROM (SELECT a AS c0, s AS c1 FROM t2) AS r1 INTERSECT SELECT r2.c0 AS c0, r2.c3 AS c1 FROM (SELECT a AS c0, b AS c1, c AS c2, s AS c3 FROM t1) AS r2) AS r3 WHERE r3.c0 >= (SELECT min(r4.c1) FROM (SELECT a AS c0, b AS c1 FROM t3) AS r4)
