"""What both planes share: settings, rendering, records, the words on the seams, and the command line."""
