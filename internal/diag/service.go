package diag

import (
	"context"
	"net/url"
)

// Service asks the daemon at the socket what it knows of a Service.
func Service(ctx context.Context, socket, namespace, name string, into any) error {
	q := url.Values{"namespace": {namespace}, "name": {name}}
	return daemon{socket}.get(ctx, "service?"+q.Encode(), into)
}
