"""Images and files to and from a pod, over the exec channel."""
