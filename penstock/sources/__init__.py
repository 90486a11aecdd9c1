"""Where commits come from: the git command, with hooks off, few protocols and no prompts."""
