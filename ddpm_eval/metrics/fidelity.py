"""The parts of torch-fidelity that are used here, imported in the way that works beside any torch.

torch-fidelity imports torchvision, which has to be imported by `import_torchvision` first. No other file
imports torch-fidelity.
"""

from ddpm_eval.data.torchvision_compatibility import import_torchvision

import_torchvision()

from torch_fidelity import (  # noqa: E402 - only now can it be imported
    FeatureExtractorBase,
    FeatureExtractorInceptionV3,
    register_feature_extractor,
)
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP_MODELS  # noqa: E402
from torch_fidelity.feature_extractor_clip import MODEL_URLS as CLIP_URLS  # noqa: E402
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP  # noqa: E402
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2_MODELS  # noqa: E402
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # noqa: E402
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import (  # noqa: E402
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)
from torch_fidelity.metric_prc import (  # noqa: E402
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    calc_cdist_part,
    prc_features_to_metric,
)
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY  # noqa: E402

__all__ = [
    "CLIP_MODELS",
    "CLIP_URLS",
    "DINOV2_MODELS",
    "FEATURE_EXTRACTORS_REGISTRY",
    "KEY_METRIC_FID",
    "KEY_METRIC_ISC_MEAN",
    "KEY_METRIC_KID_MEAN",
    "KEY_METRIC_KID_STD",
    "KEY_METRIC_PRECISION",
    "KEY_METRIC_RECALL",
    "URL_INCEPTION_V3",
    "FeatureExtractorBase",
    "FeatureExtractorCLIP",
    "FeatureExtractorDinoV2",
    "FeatureExtractorInceptionV3",
    "calc_cdist_part",
    "fid_statistics_to_metric",
    "isc_features_to_metric",
    "kid_features_to_metric",
    "prc_features_to_metric",
    "register_feature_extractor",
]
