"""Deep Q-learning: actor, replay, learner, evaluation and the training loop."""
