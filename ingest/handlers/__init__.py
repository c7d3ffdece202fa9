"""One file per Lambda function, about ten lines each."""
