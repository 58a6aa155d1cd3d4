-- Q6: forecasting revenue change
-- The discount is within 0.01 of 0.06. The bounds are written out because 0.06 + 0.01
-- is below 0.07 in binary floating point.
select
    sum(l_extendedprice * l_discount) as revenue
from lineitem
where l_shipdate >= date '1994-01-01'
  and l_shipdate < date '1994-01-01' + interval '1' year
  and l_discount between 0.05 and 0.07
  and l_quantity < 24;
