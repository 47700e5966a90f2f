-- What the database has of the same run or, of what is asked per image of a network, of the same protocol, is left out.
INSERT INTO <table> BY NAME
SELECT <columns>
FROM (SELECT i.*, protocol FROM in_<table> AS i LEFT JOIN runs USING (run_id)) AS coming
ANTI JOIN (
    SELECT <stored> FROM (SELECT s.*, protocol FROM <table> AS s LEFT JOIN runs USING (run_id))
) AS there USING (<key>)
