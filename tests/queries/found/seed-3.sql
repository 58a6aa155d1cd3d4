-- tables of seed 0
SELECT r4.c0 AS c0 FROM (SELECT r2.c0 AS c0 FROM (SELECT count(*) AS c0 FROM (SELECT a AS c0, b AS c1 FROM t3) AS r1) AS r2 EXCEPT SELECT r3.c0 AS c0 FROM (SELECT a AS c0, b AS c1 FROM t3) AS r3) AS r4 WHERE r4.c0 >= (SELECT count(r5.c0) FROM (SELECT a AS c0, b AS c1 FROM t3) AS r5)
