"""The leaderboard: reads results databases, computes measures of networks and defenses, and writes one web page."""
