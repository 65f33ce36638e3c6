"""Other people's trainers and trackers: each test runs where its package is installed, and names it
where it is not. ``requirements.txt`` lists them all."""
