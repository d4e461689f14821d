"""Graphs as pictures: text for terminals and scripts, DOT, Mermaid, SVG."""
