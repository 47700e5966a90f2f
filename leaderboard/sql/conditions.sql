SELECT degradation, level, trials FROM condition_index WHERE board = $board ORDER BY condition
