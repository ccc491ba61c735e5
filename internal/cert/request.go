package cert

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

const (
	callTimeout = 30 * time.Second
	// shortWatch is a watch that ended too soon to be asked for again at once.
	shortWatch = time.Second
)

// refusal is an answer that asking again does not change: a request that was
// denied or could not be signed.
type refusal struct{ request, why string }

func (r refusal) Error() string {
	return fmt.Sprintf("certificate signing request %s was refused: %s", r.request, r.why)
}

// isRefused tells whether the cluster said no, rather than nothing.
func isRefused(err error) bool {
	var r refusal
	return errors.As(err, &r) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsInvalid(err)
}

// requests is the certificates API of one server, by one identity.
type requests struct {
	client rest.Interface
	params runtime.ParameterCodec
}

// dialRequests opens no connection.
func dialRequests(cfg *rest.Config) (*requests, error) {
	scheme := runtime.NewScheme()
	if err := certsv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make client for signing requests: %w", err)
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // Status comes as v1
	cfg = rest.CopyConfig(cfg)
	cfg.GroupVersion, cfg.APIPath = &certsv1.SchemeGroupVersion, "/apis"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.QPS, cfg.RateLimiter, cfg.Timeout = -1, nil, 0 // each call has a deadline, and attempts have pauses
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for signing requests: %w", err)
	}
	return &requests{client, runtime.NewParameterCodec(scheme)}, nil
}

// obtain asks for a certificate for key and waits until it is signed, for as
// long as ctx lasts: in a cluster where a person approves, that is days, with one
// request and one watch. waiting is told the name that has to be approved.
func (r *requests) obtain(ctx context.Context, o order, key crypto.Signer, waiting func(name string)) ([]byte, error) {
	name, err := o.id(key)
	if err != nil {
		return nil, err
	}
	text, err := o.request(key)
	if err != nil {
		return nil, err
	}
	want := &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       certsv1.CertificateSigningRequestSpec{Request: text, SignerName: o.signer, Usages: o.usages(key)},
	}
	for {
		got, err := r.ensure(ctx, want, key)
		if err != nil {
			return nil, err
		}
		if cert, err := verdict(got); cert != nil || err != nil {
			return cert, err
		}
		waiting(name)
		if err := r.await(ctx, got); err != nil {
			return nil, fmt.Errorf("wait for certificate signing request %s: %w", name, err)
		}
	}
}

// ensure returns the request as the server has it. One that is there already is
// ours from before a restart; one that is gone was swept by the cluster and is
// made anew.
func (r *requests) ensure(ctx context.Context, want *certsv1.CertificateSigningRequest, key crypto.Signer) (*certsv1.CertificateSigningRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got := &certsv1.CertificateSigningRequest{}
	err := r.client.Get().Resource("certificatesigningrequests").Name(want.Name).Do(ctx).Into(got)
	if apierrors.IsNotFound(err) {
		got = &certsv1.CertificateSigningRequest{}
		err = r.client.Post().Resource("certificatesigningrequests").Body(want).Do(ctx).Into(got)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for certificate signing request %s: %w", want.Name, err)
	}
	if got.Spec.SignerName != want.Spec.SignerName || !samePublic(got.Spec.Request, key) {
		return nil, refusal{want.Name, "the name is taken by a request that is not of this node"}
	}
	return got, nil
}

// verdict is the certificate, or the refusal, or neither.
func verdict(got *certsv1.CertificateSigningRequest) ([]byte, error) {
	for _, c := range got.Status.Conditions {
		if c.Type == certsv1.CertificateDenied || c.Type == certsv1.CertificateFailed {
			return nil, refusal{got.Name, fmt.Sprintf("%s: %s: %s", c.Type, c.Reason, c.Message)}
		}
	}
	if len(got.Status.Certificate) == 0 {
		return nil, nil
	}
	return got.Status.Certificate, nil
}

// await returns when the request may be another than got, or with an error when
// the server is not to be asked again at once.
func (r *requests) await(ctx context.Context, got *certsv1.CertificateSigningRequest) error {
	limit := 5*time.Minute + rand.N(5*time.Minute)
	seconds := int64(limit.Seconds())
	ctx, cancel := context.WithTimeout(ctx, limit+callTimeout) // a server that forgets to end it
	defer cancel()
	begun := time.Now()
	w, err := r.client.Get().Resource("certificatesigningrequests").VersionedParams(&metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, got.Name).String(),
		ResourceVersion: got.ResourceVersion,
		TimeoutSeconds:  &seconds,
		Watch:           true,
	}, r.params).Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		switch e.Type {
		case watch.Bookmark:
		case watch.Error:
			if err := apierrors.FromObject(e.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				return err
			}
			return nil
		default:
			return nil
		}
	}
	if time.Since(begun) < shortWatch {
		return errors.New("the server ended the watch at once")
	}
	return nil
}
