"""Many runs: a space of configurations, who proposes the next one, and what can be said of all of them."""
