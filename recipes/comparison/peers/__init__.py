"""The methods that AdvBN is compared with, a file a method."""
