"""What a training is told, and what it leaves: recipes, runs, and who writes them."""
