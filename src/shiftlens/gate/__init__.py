"""Pass or fail: limits on what a sweep shows, decided at 5 %."""
