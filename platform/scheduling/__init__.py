"""The cluster model and the pure planner: which node each bundle goes to, or which resource is short where."""
