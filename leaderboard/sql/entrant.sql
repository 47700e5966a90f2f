SELECT condition, image, label, trials, hit, changed, top5, nll FROM per_image WHERE entrant = $entrant
