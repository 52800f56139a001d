"""Reads ROS messages and gives ROS messages: one thin node a file around the cores, and the graph in one process."""
