package cluster

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Core is a client of core/v1 as an administrator, for who makes and watches pods
// by the hundred: kubectl is a process for each.
func (c *Cluster) Core() (*rest.RESTClient, error) {
	p, err := c.ca.client(admin)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return rest.RESTClientFor(&rest.Config{
		Host: c.Server(), Dial: c.bed.Connect, QPS: -1, APIPath: "/api",
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem, CertData: p.cert, KeyData: p.key},
		WarningHandler:  rest.NoWarnings{},
		ContentConfig: rest.ContentConfig{
			GroupVersion: &corev1.SchemeGroupVersion, ContentType: runtime.ContentTypeProtobuf,
			NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
		},
	})
}
