"""The degradations of the paper: noise on colours, black pixels, and moved, turned and mirrored views."""
