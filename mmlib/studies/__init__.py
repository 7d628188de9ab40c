"""The questions that chapters ask of their records: tables and figures of one study a file."""
