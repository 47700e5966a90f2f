"""The leaderboard: reads results databases, aggregates them by network and defense, writes one self-contained page."""
