package worker

import "log/slog"

var quietLogger = slog.New(slog.DiscardHandler)
